-- RAGFlow's tables, with the columns that the import reads and the types that RAGFlow's ORM uses on
-- MySQL. ragflow_sources.py has those on PostgreSQL.
CREATE TABLE api_4_conversation (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    create_time BIGINT NULL,
    create_date DATETIME NULL,
    update_time BIGINT NULL,
    update_date DATETIME NULL,
    name VARCHAR(255) NULL,
    dialog_id VARCHAR(32) NOT NULL,
    user_id VARCHAR(255) NOT NULL,
    exp_user_id VARCHAR(255) NULL,
    message LONGTEXT NULL,
    reference LONGTEXT NULL,
    tokens INTEGER NOT NULL,
    source VARCHAR(16) NULL,
    dsl LONGTEXT NULL,
    duration FLOAT NOT NULL,
    round INTEGER NOT NULL,
    thumb_up INTEGER NOT NULL,
    errors TEXT NULL,
    version_title VARCHAR(255) NULL
);
CREATE INDEX api4conversation_create_time ON api_4_conversation (create_time);
CREATE INDEX api4conversation_dialog_id ON api_4_conversation (dialog_id);

CREATE TABLE api_token (
    create_time BIGINT NULL,
    create_date DATETIME NULL,
    update_time BIGINT NULL,
    update_date DATETIME NULL,
    tenant_id VARCHAR(32) NOT NULL,
    token VARCHAR(255) NOT NULL,
    dialog_id VARCHAR(32) NULL,
    source VARCHAR(16) NULL,
    beta VARCHAR(255) NULL,
    status VARCHAR(1) NULL,
    PRIMARY KEY (tenant_id, token)
);

CREATE TABLE dialog (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    tenant_id VARCHAR(32) NOT NULL,
    name VARCHAR(255) NULL
);

CREATE TABLE user_canvas (
    id VARCHAR(32) NOT NULL PRIMARY KEY,
    user_id VARCHAR(255) NOT NULL,
    dsl LONGTEXT NULL
);
