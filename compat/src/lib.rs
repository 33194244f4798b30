//! Nothing but tests: they hold totpd against the client that ZITADEL publishes.
