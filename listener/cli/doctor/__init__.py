"""`doctor`: checks everything that the listener needs; prints what is wrong and what to do."""
