"""Verifiers: programs that decide whether a stated result is right, without asking the program that stated it."""
