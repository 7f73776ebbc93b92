"""Studio's real library, JGit, publishing beside the running listener."""
