//! provisional
use super::lex::LiteralAt;
use super::*;
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) map: &'a Map,
    pub(super) catalog: &'a Catalog,
    pub(super) env: &'a Env,
}
#[derive(Debug)]
pub(super) struct Plan {}
impl Plan {
    pub(super) fn analyze(
        _ast: &sqlparser::ast::Statement,
        _text: &str,
        _literals: &[LiteralAt],
        _ctx: &Context<'_>,
    ) -> Plan {
        Plan {}
    }
    pub(super) fn route(
        &self,
        map: &Map,
        _catalog: &Catalog,
        _text: &[u8],
        _literals: &[LiteralAt],
        _params: &[Param<'_>],
        _env: &Env,
    ) -> Result<Route, RouteError> {
        Ok(Route { target: Target::Shard(map.default_shard), ..self.alone() })
    }
    pub(super) fn by_text_only(&self) -> bool {
        false
    }
    pub(super) fn alone(&self) -> Route {
        Route {
            target: Target::Any,
            access: Access::Read,
            verb: Verb::Select,
            rewrite: None,
            pin: None,
            binds_transaction: false,
        }
    }
}
