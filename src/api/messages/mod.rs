//! The messages of the protos: one definition of each serves JSON and protobuf.
//!
//! Wire types, not domain types: every struct here derives both forms, so that a field cannot be in one and
//! missing in the other. They hold what was sent and judge nothing; `calls` does. A `oneof` is so many optional
//! fields, which is what it is on the wire; that only one is set is judged with the rest. None has `Debug`,
//! for some hold codes and secrets.

mod bounds;
mod data_in;
mod data_out;
mod json;
mod object;
mod page;
mod protobuf;
pub(super) mod rpc;
mod search;
mod totps;
mod users;
mod well_known;

pub(super) use bounds::{Bound, FILTERS_OF_SEARCH, USERNAMES_OF_USER};
pub(super) use data_in::Struct;
pub(super) use json::enumeration_in_text;
pub use object::{Details, DetailsResponse};
pub(super) use object::{Instance, Organization, UserRequest};
pub(super) use page::{Failure, Page};
pub(super) use search::{
    FieldName, Filters, IdFilter, SearchFilter, SearchQuery, SearchUsersRequest, TextFilterMethod,
    UsernameFilter, read_filters,
};
pub(super) use totps::{CheckRequest, TotpCodeRequest, TotpRequest, read_code, read_start};
pub use totps::{CheckResponse, StartResponse};
pub(super) use users::{CreateUser, CreateUserRequest, GetUserRequest, State, read_user};
pub use users::{GetUserResponse, Totp, User};

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Protobuf,
}
