//! The connections between a process and the services.

use crate::time::Millis;

/// A service that a process talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Broker,
    Ledger,
    /// Tools and the model: faults between Baton's own parts do not affect them.
    Outside,
}

/// The times until which a process is cut off from the services, for requests and for answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Links {
    broker: (Millis, Millis),
    ledger: (Millis, Millis),
}

impl Links {
    pub(crate) fn of(&mut self, service: Service) -> Option<&mut (Millis, Millis)> {
        match service {
            Service::Broker => Some(&mut self.broker),
            Service::Ledger => Some(&mut self.ledger),
            Service::Outside => None,
        }
    }
}
