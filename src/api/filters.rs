//! Turns the message of a search into filters, an order and a page.

use super::messages::State;
use super::messages::{
    FieldName, Filters, IdFilter, SearchFilter, SearchUsersRequest, TextFilterMethod,
    UsernameFilter,
};
use crate::error::{Error, Result};
use crate::model::{Filter, Name, Search, SortBy, TextFilter, TextMethod, UserState};

/// Users on a page, by default and at most.
const PAGE: u32 = 100;
const MAX_PAGE: u32 = 1000;

/// Parses a search.
pub(super) fn search(request: &SearchUsersRequest) -> Result<Search> {
    let query = request.query.clone().unwrap_or_default();
    let limit = match query.limit {
        0 => PAGE,
        limit if limit <= MAX_PAGE => limit,
        _ => return Err(Error::invalid("query.limit", "expected at most 1000")),
    };
    Ok(Search {
        filters: all(&request.filters)?,
        sort: sort_by(request.sorting_column)?,
        descending: query.desc,
        offset: query.offset,
        limit,
    })
}

fn sort_by(column: i32) -> Result<SortBy> {
    match FieldName::try_from(column) {
        Ok(FieldName::Unspecified | FieldName::CreationDate) => Ok(SortBy::Creation),
        Ok(FieldName::Id) => Ok(SortBy::Id),
        Ok(FieldName::ChangeDate) => Ok(SortBy::Change),
        Ok(FieldName::State) => Ok(SortBy::State),
        Ok(FieldName::SchemaId) => Ok(SortBy::SchemaId),
        Ok(FieldName::Email | FieldName::Phone | FieldName::SchemaType) | Err(_) => {
            Err(Error::invalid(
                "sortingColumn",
                "expected id, creation date, change date, state or schema id",
            ))
        }
    }
}

fn all(filters: &[SearchFilter]) -> Result<Vec<Filter>> {
    filters.iter().map(filter).collect()
}

/// Parses a filter. The number and depth of filters was judged before they were decoded.
fn filter(it: &SearchFilter) -> Result<Filter> {
    let wrong = |problem| Error::invalid("filters", problem);
    let mut found = Vec::with_capacity(1);
    if let Some(any) = &it.or_filter {
        found.push(Filter::Or(some(any)?));
    }
    if let Some(every) = &it.and_filter {
        found.push(Filter::And(some(every)?));
    }
    if let Some(not) = &it.not_filter {
        let query = not.query.as_deref();
        let query = query.ok_or_else(|| wrong("notFilter needs a query"))?;
        found.push(Filter::Not(Box::new(filter(query)?)));
    }
    if let Some(IdFilter { id, method }) = &it.user_id_filter {
        found.push(Filter::Id(text("userIdFilter.id", id, *method)?));
    }
    if let Some(IdFilter { id, method }) = &it.organization_id_filter {
        let like = text("organizationIdFilter.id", id, *method)?;
        found.push(Filter::Organization(like));
    }
    if let Some(UsernameFilter {
        username,
        method,
        is_organization_specific,
    }) = &it.username_filter
    {
        found.push(Filter::Username {
            like: text("usernameFilter.username", username, *method)?,
            specific_only: *is_organization_specific,
        });
    }
    if let Some(it) = &it.state_filter {
        found.push(state(it.state)?);
    }
    let others = [
        &it.email_filter,
        &it.phone_filter,
        &it.schema_id_filter,
        &it.schema_type_filter,
    ];
    if others.into_iter().any(Option::is_some) {
        return Err(wrong("totpd does not search by email, phone or schema"));
    }
    match (found.pop(), found.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(wrong("expected exactly one kind of filter in each")),
    }
}

fn some(filters: &Filters) -> Result<Vec<Filter>> {
    if filters.queries.is_empty() {
        return Err(Error::invalid("filters", "expected at least one query"));
    }
    all(&filters.queries)
}

fn text(field: &'static str, text: &str, method: i32) -> Result<TextFilter> {
    use TextFilterMethod as M;
    let method = match M::try_from(method) {
        Ok(M::Equals) => TextMethod::Equals,
        Ok(M::EqualsIgnoreCase) => TextMethod::EqualsIgnoreCase,
        Ok(M::StartsWith) => TextMethod::StartsWith,
        Ok(M::StartsWithIgnoreCase) => TextMethod::StartsWithIgnoreCase,
        Ok(M::Contains) => TextMethod::Contains,
        Err(_) => return Err(Error::invalid("method", "expected one that is known")),
    };
    let text = Name::for_lookup(field, text)?;
    Ok(TextFilter { text, method })
}

fn state(state: i32) -> Result<Filter> {
    Ok(match State::try_from(state) {
        Ok(State::Active) => Filter::State(UserState::Active),
        Ok(State::Inactive) => Filter::State(UserState::Inactive),
        Ok(State::Locked) => Filter::State(UserState::Locked),
        // A removed user has no row.
        Ok(State::Deleted) => Filter::Nothing,
        Ok(State::Unspecified) | Err(_) => {
            return Err(Error::invalid("stateFilter.state", "expected a state"));
        }
    })
}
