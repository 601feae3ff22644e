"""What can be reconstructed of an example, from one client's update up to the sum of a whole cohort?"""
