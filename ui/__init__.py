"""The operator's screen: a client of the desk in any terminal. `ui.app` says how to use and to drive it."""
