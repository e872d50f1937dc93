"""asynctrack beside the trackers that people use, each set up as its documentation recommends, one after the other in one run."""
