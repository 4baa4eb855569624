"""From findings to a drafted report, and to an opinion how soon it should be read."""
