"""Servers, clients and fakes for the tests. No test is here."""
