"""The program beside others: what it is measured against."""
