"""Drafting by vLLM servers over HTTP: what is sent, what is believed of the answer, whom to ask."""
