"""Sinks for the test of the recipe. No test lives here."""
