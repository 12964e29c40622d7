"""The three-minute tour: real processes on one machine, with everything going wrong that can."""
