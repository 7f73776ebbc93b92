"""`doctor`: looks at everything that the listener needs, and says what is wrong and what to do."""
