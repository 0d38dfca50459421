//! From what the walk gathered to a plan, and from a plan and values to the shards.
//! Must not know how the syntax was walked.

use sqlparser::ast::{Query, SetExpr, Statement};

use super::analysis::Analysis;
use super::cond::{Parts, key_column};
use super::functions::{self, names_the_present};
use super::graph::{Node, Role};
use super::insert::{Given, Rows};
use super::keys::{Read, Values};
use super::operands::Ordinals;
use super::place::stored;
use super::scope::Ctes;
use super::survey::Survey;
use super::{Context, Keyed, Obstacle, Plan, rewrite};
use crate::catalog::Leavers;
use crate::route::lex::LiteralAt;
use crate::route::{Access, Asks, Pin, Route, RouteError, Target, Verb};
use crate::shard::{Map, PartitionId, Placement, ShardSet};

/// See [`Plan::analyze`].
pub(super) fn plan(
    ast: &Statement,
    text: &str,
    source: &[u8],
    literals: &[LiteralAt],
    ctx: &Context<'_>,
) -> Plan {
    let survey = Survey::of(ast);
    let ordinals = Ordinals::new(text, source, literals);
    let mut analysis = Analysis::new(*ctx, ordinals, survey);
    analysis.statement(ast);
    analysis.cross_check();
    analysis.function_bodies();
    analysis.locks();
    analysis.finish(ast)
}

impl Analysis<'_> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "no other statement is handed to the analysis")]
    fn statement(&mut self, statement: &Statement) {
        let sight = Ctes::default();
        match statement {
            Statement::Query(query) => {
                self.query(query, None, &sight);
            }
            Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_) | Statement::Merge(_) => {
                self.write(statement, None, &sight);
            }
            _ => self.not_understood("this statement"),
        }
    }

    /// The parser's own visitor must have met the same tables and queries, or one was missed.
    fn cross_check(&mut self) {
        self.relations.sort_unstable();
        if self.relations != self.survey.relations || self.queries != self.survey.queries {
            self.not_understood("this form of statement");
        }
    }

    /// A lock on a reference table's row must be the same lock for everyone.
    fn locks(&mut self) {
        let locked = self.survey.locks.iter().any(|of| match of {
            None => !self.references.is_empty(),
            Some(name) => self.references.contains(name),
        });
        if !locked {
            return;
        }
        let alone = self.pins.is_empty() && !self.graph.insts.iter().any(|i| i.sharded.is_some());
        if alone {
            self.pins.push((self.ctx.map.default_shard, "the lock".to_owned()));
        } else {
            self.refuse(
                format!("FOR UPDATE or FOR SHARE of reference table \"{}\"", self.references.join("\", \"")),
                "Name the other table after OF, e.g. FOR UPDATE OF users.",
            );
        }
    }

    fn finish(mut self, statement: &Statement) -> Plan {
        let spread = self.obstacle(statement);
        let into_default = self.survey.into.map(|_| (self.ctx.map.default_shard, "the new table".to_owned()));
        self.pins.extend(into_default);
        self.own_state();
        let (access, pin, asks, binds, homed) = self.effects();
        let untrusted = self.untrusted();
        let tables = self.keyed();
        self.selected_keys();
        Plan {
            verb: verb(statement),
            access,
            pin,
            asks,
            binds,
            by_text: self.by_text,
            homed,
            refusal: self.refusal,
            tables,
            pins: self.pins,
            inserts: self.inserts,
            key_updates: self.key_updates,
            spread,
            untrusted,
        }
    }

    /// What is the default shard's whatever the tables say: advisory locks, which are the same for everyone, and temporary
    /// tables, which must not hide others.
    fn own_state(&mut self) {
        let catalog = self.ctx.catalog;
        if self.survey.calls.iter().any(|call| functions::locks(&call.name, catalog)) {
            self.pins.push((self.ctx.map.default_shard, "advisory locks".to_owned()));
        }
        let hidden = self.survey.into_name.clone().filter(|name| {
            self.survey.into == Some(true) && self.ctx.map.tables.keys().any(|table| table.name == *name)
        });
        if let Some(name) = hidden {
            self.refuse(
                format!("a temporary table that would hide table \"{name}\""),
                "Give it a name that proxy.toml does not place.",
            );
        }
    }

    fn effects(&self) -> (Access, Option<Pin>, Asks, bool, bool) {
        let catalog = self.ctx.catalog;
        let is_restless =
            |name: &String| !catalog.restless.is_empty() && catalog.restless.contains(&name.to_lowercase());
        let restless = self.survey.tables.iter().any(is_restless);
        let writes = self.survey.writes || self.survey.into.is_some() || self.unclear || restless;
        let mut access = match (writes, self.survey.locks.is_empty()) {
            (true, _) => Access::Write,
            (false, true) if !self.primary_only => Access::Read,
            (false, _) => Access::Primary,
        };
        let mut pin = (self.survey.into == Some(true)).then_some(Pin::TempTable);
        // What runs unasked: triggers, rules, policies, operators.
        let leavers = &self.ctx.catalog.leavers;
        let tables = self.survey.tables.iter().filter_map(|name| leavers.relation(name, writes));
        pin = Pin::joined(pin, tables.max().max(leavers.anything()).map(Pin::from));
        pin = Pin::joined(pin, self.survey.into.and(leavers.events()).map(Pin::from));
        let (mut asks, mut binds, mut homed) = (Asks::default(), false, restless);
        let reads_one =
            |tellers: &Leavers| self.survey.tables.iter().any(|name| tellers.relation(name, true).is_some());
        (asks.prepared, asks.channels) =
            (reads_one(&catalog.tell_statements), reads_one(&catalog.tell_channels));
        let calls = self.survey.calls.iter().map(|call| functions::effect(call, catalog));
        let fields = self.survey.fields.iter().filter_map(|name| functions::effect_of_field(name, catalog));
        for effect in calls.chain(fields) {
            access = match (access, effect.access) {
                (Access::Write, _) | (_, Access::Write) => Access::Write,
                (Access::Primary, _) | (_, Access::Primary) => Access::Primary,
                (Access::Read, Access::Read) => Access::Read,
            };
            pin = Pin::joined(pin, effect.pin);
            asks = asks.and(effect.asks);
            binds |= effect.binds;
            homed |= effect.homed;
        }
        // What it draws itself it may tell; what a function or a default draws in it is not known.
        asks.undrawn &= !self.survey.calls.iter().any(|call| call.name == "nextval");
        (access, pin, asks, binds, homed)
    }

    /// Parameters of keys that stand elsewhere too, or beside columns of other types.
    fn untrusted(&self) -> Vec<u16> {
        let doubtful = |(n, uses): (&u16, &Vec<_>)| {
            let alike = uses.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
            let all = self.survey.params.get(n).is_some_and(|count| *count as usize == uses.len());
            (!all || !alike).then_some(*n)
        };
        let mut doubtful: Vec<u16> = self.param_uses.iter().filter_map(doubtful).collect();
        doubtful.sort_unstable();
        doubtful
    }

    fn keyed(&self) -> Vec<Keyed> {
        let mut tables = Vec::new();
        for (inst, found) in self.graph.insts.iter().enumerate() {
            let Some(sharded) = found.sharded.as_ref().filter(|_| found.role == Role::Read) else { continue };
            let Some(Placement::Sharded(columns)) = self.ctx.map.tables.get(&sharded.table) else { continue };
            tables.push(Keyed { inst, table: sharded.table.clone(), cond: self.graph.cond(inst, columns) });
        }
        tables
    }

    /// What is known of the keys that INSERT … SELECT copies.
    fn selected_keys(&mut self) {
        for insert in &mut self.inserts {
            let Rows::Selected { keys, .. } = &mut insert.rows else { continue };
            let sharded = self.graph.insts.get(insert.inst).and_then(|i| i.sharded.as_ref());
            for (key, given) in keys.iter_mut().enumerate() {
                let Given::Flow(cond) = given else { continue };
                let at = sharded.and_then(|s| s.keys.get(key).copied().flatten());
                let column = key_column(self.ctx.map, &insert.table, key);
                if let (Some(at), Some(column)) = (at, column) {
                    *cond = self.graph.cond_of(Node { inst: insert.inst, column: at }, key, column);
                }
            }
        }
    }
}

fn verb(statement: &Statement) -> Verb {
    #[expect(clippy::wildcard_enum_match_arm, reason = "all else counts as other")]
    match statement {
        Statement::Query(query) => verb_of_query(query),
        Statement::Insert(_) => Verb::Insert,
        Statement::Update(_) => Verb::Update,
        Statement::Delete(_) => Verb::Delete,
        _ => Verb::Other,
    }
}

fn verb_of_query(query: &Query) -> Verb {
    match query.body.as_ref() {
        SetExpr::Insert(s) | SetExpr::Update(s) | SetExpr::Delete(s) | SetExpr::Merge(s) => verb(s),
        SetExpr::Select(_)
        | SetExpr::Query(_)
        | SetExpr::SetOperation { .. }
        | SetExpr::Values(_)
        | SetExpr::Table(_) => Verb::Select,
    }
}

impl Plan {
    pub(super) fn to(&self, target: Target, rewrite: Option<String>) -> Route {
        Route {
            target,
            access: self.access,
            verb: self.verb,
            rewrite,
            pin: self.pin,
            asks: self.asks,
            binds_transaction: self.binds,
            partition: None,
        }
    }

    /// There is only one shard: nothing is refused, keys are filled in where they can be.
    pub(super) fn on_one(&self, map: &Map, values: &Values<'_>) -> Result<Route, RouteError> {
        let mut edits = Vec::new();
        for insert in &self.inserts {
            match insert.place(map, values) {
                Ok(placed) => edits.extend(placed.edits),
                Err(RouteError::Refused { .. }) => {}
                Err(error @ RouteError::Sql { .. }) => return Err(error),
            }
        }
        let rewrite = self.rewritten(&edits, values).unwrap_or(None);
        Ok(self.to(Target::Shard(map.default_shard), rewrite))
    }

    pub(super) fn on_several(&self, map: &Map, values: &Values<'_>) -> Result<Route, RouteError> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        let mut shards: ShardSet = self.pins.iter().map(|(shard, _)| *shard).collect();
        let mut spread = None;
        let mut partition = None;
        for table in &self.tables {
            let parts = table.cond.parts(&table.table, map, values);
            partition = agreed(partition, parts.single());
            let own = parts.shards(map);
            if own.len() > 1 && spread.is_none() {
                spread = Some(table);
            }
            shards = shards.union(own);
        }
        let mut edits = Vec::new();
        for insert in &self.inserts {
            let placed = insert.place(map, values)?;
            partition = agreed(partition, placed.parts.single());
            let own = placed.parts.shards(map);
            if own.len() > 1 {
                return Err(rows_of_several_shards(&insert.table.name));
            }
            shards = shards.union(own);
            edits.extend(placed.edits);
        }
        if let Some(table) = spread {
            return self.fan_out(table, shards, map, values);
        }
        self.check_key_updates(map, values)?;
        let target = match (shards.single(), shards.is_empty()) {
            (Some(shard), _) => Target::Shard(shard),
            (None, true) => self.anywhere(map),
            (None, false) => return Err(self.apart(map, values)),
        };
        let partition = partition.flatten();
        Ok(Route { partition, ..self.to(target, self.rewritten(&edits, values)?) })
    }

    /// No table says where: no rows can match, or there are none but reference tables.
    fn anywhere(&self, map: &Map) -> Target {
        let stateful = self.homed || self.access == Access::Write;
        if self.tables.is_empty() && self.inserts.is_empty() && !stateful {
            Target::Any
        } else {
            Target::Shard(map.default_shard)
        }
    }

    fn rewritten(
        &self,
        edits: &[(rewrite::Place, String)],
        values: &Values<'_>,
    ) -> Result<Option<String>, RouteError> {
        if edits.is_empty() {
            return Ok(None);
        }
        let text = rewrite::apply(values.text, values.env.nonstandard_strings, edits);
        text.map(Some).ok_or_else(|| RouteError::Refused {
            what: "INSERT without a key column that pgherd fills in, in this form".to_owned(),
            hint: "Give every key column in every row.".to_owned(),
        })
    }

    fn fan_out(
        &self,
        table: &Keyed,
        shards: ShardSet,
        map: &Map,
        values: &Values<'_>,
    ) -> Result<Route, RouteError> {
        let present = |text: &str| names_the_present(text);
        let in_literal =
            |i: usize| u32::try_from(i).ok().and_then(|i| values.literal(i)).is_some_and(|t| present(&t));
        let in_param = |value: &[u8]| std::str::from_utf8(value).is_ok_and(present);
        let obstacle = match &self.spread {
            Err(obstacle) => obstacle.clone(),
            Ok(()) => {
                let moment = (0..values.literals.len()).any(in_literal)
                    || values.params.iter().filter(|p| !p.binary).filter_map(|p| p.value).any(in_param);
                if !moment {
                    return Ok(self.to(Target::Fanout(shards), None));
                }
                Obstacle {
                    lead: "the literal 'now', 'today', 'tomorrow' or 'yesterday', which may differ from shard to shard, over"
                        .to_owned(),
                    hint: Some("write the moment itself".to_owned()),
                }
            }
        };
        Err(self.obstructed(&obstacle, table, map))
    }

    fn obstructed(&self, obstacle: &Obstacle, table: &Keyed, map: &Map) -> RouteError {
        let columns: Vec<String> = match map.tables.get(&table.table) {
            Some(Placement::Sharded(keys)) => {
                keys.iter().map(|k| format!("\"{}\" = value", k.column)).collect()
            }
            Some(Placement::Reference | Placement::Single(_)) | None => Vec::new(),
        };
        let or = obstacle.hint.as_ref().map(|hint| format!(", or {hint}")).unwrap_or_default();
        RouteError::Refused {
            what: format!("{} table \"{}\" on several shards", obstacle.lead, table.table.name),
            hint: format!("Add {} for \"{}\"{or}.", columns.join(" or "), table.table.name),
        }
    }

    /// Each table is on one shard, but not all on the same.
    fn apart(&self, map: &Map, values: &Values<'_>) -> RouteError {
        let keyed = self.tables.iter().filter_map(|table| {
            let shard = table.cond.parts(&table.table, map, values).shards(map).single()?;
            Some((shard, format!("table \"{}\"", table.table.name)))
        });
        let inserted = self.inserts.iter().filter_map(|insert| {
            let shard = insert.place(map, values).ok()?.parts.shards(map).single()?;
            Some((shard, format!("table \"{}\"", insert.table.name)))
        });
        let mut where_: Vec<String> = self
            .pins
            .iter()
            .cloned()
            .chain(keyed)
            .chain(inserted)
            .map(|(shard, what)| format!("{what} on {}", map.shard_name(shard)))
            .collect();
        where_.dedup();
        RouteError::Refused {
            what: format!("one statement over several shards ({})", where_.join(", ")),
            hint: "Use one statement for each shard.".to_owned(),
        }
    }

    /// A key may be set only to one of the same partition: the row would have to move.
    fn check_key_updates(&self, map: &Map, values: &Values<'_>) -> Result<(), RouteError> {
        for update in &self.key_updates {
            let table = self.tables.iter().find(|t| t.inst == update.inst);
            let insert = self.inserts.iter().find(|i| i.inst == update.inst);
            let (name, parts) = match (table, insert) {
                (Some(table), _) => (&table.table, table.cond.parts(&table.table, map, values)),
                (None, Some(insert)) => {
                    (&insert.table, insert.place(map, values).map_or(Parts::All, |placed| placed.parts))
                }
                (None, None) => continue,
            };
            let Some(column) = key_column(map, name, update.key) else { continue };
            let new = update.value.map_or(Read::Unknown, |operand| stored(&operand, &update.column, values));
            let stays = match &new {
                Read::Key(key) => {
                    map.partition_of(column, key).is_ok_and(|part| parts.single() == Some(part))
                }
                Read::Never => true,
                Read::Null | Read::Unknown => false,
            };
            if !stays && !parts.is_none() {
                return Err(RouteError::Refused {
                    what: format!(
                        "a change of sharding key \"{}\" of table \"{}\"",
                        column.column, name.name
                    ),
                    hint: "Delete the row and insert it anew with its new key.".to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The partition of all tables looked at so far, with that of one more; `Some(None)` if they are in several.
fn agreed(so_far: Option<Option<PartitionId>>, next: Option<PartitionId>) -> Option<Option<PartitionId>> {
    Some(so_far.map_or(next, |known| known.filter(|id| Some(*id) == next)))
}

fn rows_of_several_shards(table: &str) -> RouteError {
    RouteError::Refused {
        what: format!("INSERT into table \"{table}\" of rows that belong to several shards"),
        hint: "Insert the rows of each shard, or each row, in a statement of its own.".to_owned(),
    }
}
