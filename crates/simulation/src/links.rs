//! The ways between a process and the services.

use crate::time::Millis;

/// Whom a process speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Broker,
    Ledger,
    /// Tools and the model: out of reach of the faults between Baton's own parts.
    Outside,
}

/// Until when the ways between a process and the services are cut, there and back.
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
