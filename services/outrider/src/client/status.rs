//! Where a delivery stands, as the command line names it.

use clap::ValueEnum;
use outrider_proto::dispatch::DeliveryStatus;

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Status {
    Pending,
    Delivered,
    Failed,
    Cancelled,
}

impl Status {
    /// As requests carry it.
    pub fn wire(self) -> DeliveryStatus {
        match self {
            Self::Pending => DeliveryStatus::Pending,
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Failed => DeliveryStatus::Failed,
            Self::Cancelled => DeliveryStatus::Cancelled,
        }
    }
}
