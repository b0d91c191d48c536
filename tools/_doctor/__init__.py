"""The parts of `tools/doctor.py`: what is installed, what the machine has, and the page."""
