"""Who may do what: roles, accounts, sessions, tokens, single sign-on."""
