//! The `NFQUEUE` protocol: messages, socket, queue. Knows nothing of policies.
