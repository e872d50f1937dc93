"""Reading: a run's data for people, while it is live, when it has ended, after a crash, and without its journal. Runs anywhere."""
