"""The netfilter rules that lead packets into the queues: made from plain facts, applied, read back."""
