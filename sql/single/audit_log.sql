-- A single table: whole on one shard (vertical sharding).
CREATE TABLE IF NOT EXISTS audit_log (
    id         bigserial    PRIMARY KEY,
    user_id    varchar(50),
    action     varchar(50)  NOT NULL,
    detail     text,
    created_at timestamp    DEFAULT CURRENT_TIMESTAMP
);
CREATE INDEX IF NOT EXISTS audit_log_user_id_idx ON audit_log (user_id);
