"""Calls: their records, order and time, and which worker each goes to. Nearly all of it pure."""
