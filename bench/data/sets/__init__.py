"""The registered data sets, one file per family."""
