//! totpd's messages and those that ZITADEL publishes, as bytes: each field has the same number and kind.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, Value};
use zitadel::api::zitadel::resources::user::v3alpha as users;

const DESCRIPTORS: &[u8] = include_bytes!("../../proto/descriptors.bin");
const PACKAGE: &str = "zitadel.resources.user.v3alpha";

/// A message of ours with something in every field, as deep as they go.
fn full(pool: &DescriptorPool, name: &str, depth: usize, oneof: usize) -> DynamicMessage {
    let descriptor = pool.get_message_by_name(name).unwrap();
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        // Of a oneof only one field is set at a time.
        if let Some(choice) = field.containing_oneof()
            && !field.supports_presence_alone()
        {
            let place = choice.fields().position(|it| it == field).unwrap();
            if place != oneof % choice.fields().count() {
                continue;
            }
        }
        if let Some(value) = something(pool, &field, depth, oneof) {
            message.set_field(&field, value);
        }
    }
    message
}

trait Alone {
    /// Whether the oneof is only there to tell unset from empty.
    fn supports_presence_alone(&self) -> bool;
}

impl Alone for FieldDescriptor {
    fn supports_presence_alone(&self) -> bool {
        self.containing_oneof().is_some_and(|it| it.is_synthetic())
    }
}

fn something(
    pool: &DescriptorPool,
    field: &FieldDescriptor,
    depth: usize,
    oneof: usize,
) -> Option<Value> {
    let one = match field.kind() {
        Kind::String => Value::String(format!("{}!", field.name())),
        Kind::Bool => Value::Bool(true),
        Kind::Uint64 => Value::U64(u64::from(field.number()) + 300),
        Kind::Uint32 => Value::U32(field.number() + 300),
        Kind::Int64 => Value::I64(i64::from(field.number()) + 300),
        Kind::Int32 => Value::I32(3),
        Kind::Double => Value::F64(1.5),
        Kind::Enum(kind) => Value::EnumNumber(kind.values().last().unwrap().number()),
        Kind::Message(kind) if depth > 0 => {
            Value::Message(full(pool, kind.full_name(), depth - 1, oneof))
        }
        Kind::Message(_) => return None,
        other => panic!("{other:?}"),
    };
    Some(if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            panic!("a map")
        };
        let value = something(pool, &entry.map_entry_value_field(), depth, 2)?;
        Value::Map([(MapKey::String("k".to_owned()), value)].into())
    } else if field.is_list() {
        Value::List(vec![one.clone(), one])
    } else {
        one
    })
}

/// What we write ZITADEL's code reads, and writes again without a loss: no field of ours is unknown to it.
fn survives<M: Message + Default>(name: &str) {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let name = format!("{PACKAGE}.{name}");
    for oneof in 0..11 {
        let ours = full(&pool, &name, 5, oneof);
        let theirs = M::decode(ours.encode_to_vec().as_slice()).unwrap();
        let descriptor = pool.get_message_by_name(&name).unwrap();
        let back = DynamicMessage::decode(descriptor, theirs.encode_to_vec().as_slice()).unwrap();
        assert_eq!(back, ours, "{name}");
    }
}

#[test]
fn every_field_of_ours_is_theirs() {
    survives::<users::SearchUsersRequest>("SearchUsersRequest");
    survives::<users::SearchUsersResponse>("SearchUsersResponse");
    survives::<users::GetUserRequest>("GetUserRequest");
    survives::<users::GetUserResponse>("GetUserResponse");
    survives::<users::CreateUserRequest>("CreateUserRequest");
    survives::<users::CreateUserResponse>("CreateUserResponse");
    survives::<users::DeleteUserRequest>("DeleteUserRequest");
    survives::<users::DeleteUserResponse>("DeleteUserResponse");
    survives::<users::LockUserRequest>("LockUserRequest");
    survives::<users::LockUserResponse>("LockUserResponse");
    survives::<users::UnlockUserRequest>("UnlockUserRequest");
    survives::<users::UnlockUserResponse>("UnlockUserResponse");
    survives::<users::DeactivateUserRequest>("DeactivateUserRequest");
    survives::<users::DeactivateUserResponse>("DeactivateUserResponse");
    survives::<users::ActivateUserRequest>("ActivateUserRequest");
    survives::<users::ActivateUserResponse>("ActivateUserResponse");
    survives::<users::StartTotpRegistrationRequest>("StartTOTPRegistrationRequest");
    survives::<users::StartTotpRegistrationResponse>("StartTOTPRegistrationResponse");
    survives::<users::VerifyTotpRegistrationRequest>("VerifyTOTPRegistrationRequest");
    survives::<users::VerifyTotpRegistrationResponse>("VerifyTOTPRegistrationResponse");
    survives::<users::RemoveTotpAuthenticatorRequest>("RemoveTOTPAuthenticatorRequest");
    survives::<users::RemoveTotpAuthenticatorResponse>("RemoveTOTPAuthenticatorResponse");
}

#[test]
fn the_names_of_enums_are_theirs() {
    let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
    let names = |name: &str| {
        let found = pool.get_enum_by_name(&format!("{PACKAGE}.{name}")).unwrap();
        let values = found.values().map(|it| (it.number(), it.name().to_owned()));
        values.collect::<Vec<_>>()
    };
    for (number, name) in names("State") {
        assert_eq!(
            users::State::from_str_name(&name).map(i32::from),
            Some(number)
        );
    }
    for (number, name) in names("FieldName") {
        assert_eq!(
            users::FieldName::from_str_name(&name).map(i32::from),
            Some(number)
        );
    }
}
