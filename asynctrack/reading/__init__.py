"""Reading: a run's data for people, while it is live, after its end, after a crash, and without its journal. Runs anywhere."""
