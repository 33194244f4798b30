//! The messages of the protos: one definition of each serves JSON and protobuf.
//!
//! These are wire types, not domain types. Each struct derives both forms, so no field is missing in one of them. They hold
//! what was sent and judge nothing; `call` does. A `oneof` is a set of optional fields, as on the wire, and `call` judges
//! that only one is set. None has `Debug`, because some hold codes and secrets.

mod bounds;
mod data_in;
mod data_out;
mod events;
mod invitations;
mod json;
mod object;
mod page;
mod protobuf;
mod recovery;
pub(super) mod rpc;
mod search;
mod totps;
mod users;
mod well_known;

pub(super) use bounds::{
    Bound, CODES_OF_RESYNC, FILTERS_OF_SEARCH, TYPES_OF_EVENTS, USERNAMES_OF_USER,
};
pub(super) use data_in::Struct;
pub use data_in::read_data;
pub(super) use events::{CreationDateRange, ListEventsRequest, read_events, subject_of_type};
pub use events::{Event, kind_of_event_type};
pub(super) use invitations::{InvitationRequest, RedeemResponse, read_expires, read_redeem};
pub use invitations::{InvitationResponse, invitation_url};
pub(super) use json::enumeration_in_text;
pub use object::{Details, DetailsResponse};
pub(super) use object::{Instance, Organization, UserRequest};
pub(super) use page::Page;
pub(super) use recovery::{RecoveryCodeRequest, read_recovery_code};
pub use recovery::{RecoveryCodesResponse, RemainingResponse};
pub(super) use search::{
    FieldName, Filters, IdFilter, SearchFilter, SearchQuery, SearchUsersRequest, TextFilterMethod,
    UsernameFilter, read_filters,
};
pub(super) use totps::{
    CheckRequest, RenameRequest, ResyncRequest, TotpCodeRequest, TotpRequest, read_code,
    read_codes, read_name, read_start,
};
pub use totps::{CheckResponse, ListTotpResponse, ListedTotp, StartResponse};
pub(super) use users::{CreateUser, CreateUserRequest, GetUserRequest, State, read_user};
pub use users::{GetUserResponse, Totp, User};
pub(super) use well_known::Timestamp;

/// The encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}
