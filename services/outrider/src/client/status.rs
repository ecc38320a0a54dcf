//! The status of a delivery on the command line.

use clap::ValueEnum;
use outrider_proto::dispatch::DeliveryStatus;

/// The status of a delivery.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Status {
    Pending,
    Delivered,
    Failed,
    Cancelled,
}

impl Status {
    /// Returns the value for requests.
    pub fn wire(self) -> DeliveryStatus {
        match self {
            Self::Pending => DeliveryStatus::Pending,
            Self::Delivered => DeliveryStatus::Delivered,
            Self::Failed => DeliveryStatus::Failed,
            Self::Cancelled => DeliveryStatus::Cancelled,
        }
    }
}
