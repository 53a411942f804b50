"""Questions asked of decision tables offline."""
