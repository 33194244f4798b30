//! The messages of the protos: one definition of each serves JSON and protobuf.
//!
//! Wire types, not domain types: every struct here derives both forms, so that a field cannot be in one and
//! missing in the other. They hold what was sent and judge nothing; `calls` does. A `oneof` is so many optional
//! fields, which is what it is on the wire; that only one is set is judged with the rest. None has `Debug`,
//! for some hold codes and secrets.

mod json;
mod object;
#[cfg(feature = "grpc")]
pub(super) mod rpc;
mod search;
mod totps;
mod users;
mod well_known;

pub(super) use json::{enumeration_in_text, read};
pub use object::{Details, DetailsResponse};
pub(super) use object::{Instance, Organization, UserRequest};
pub(super) use search::{
    FieldName, Filters, IdFilter, ListDetails, SearchFilter, SearchQuery, SearchUsersRequest,
    SearchUsersResponse, TextFilterMethod, UsernameFilter, read_filters,
};
pub(super) use totps::{CheckRequest, TotpCodeRequest, TotpRequest, read_code, read_start};
pub use totps::{CheckResponse, StartResponse};
pub(super) use users::{CreateUser, CreateUserRequest, GetUserRequest, State};
pub use users::{GetUserResponse, Totp, User};
