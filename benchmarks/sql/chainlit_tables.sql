-- Create the tables of Chainlit's official data layer, which the package itself does not create: the
-- columns and indexes of its published migrations.
CREATE TYPE "StepType" AS ENUM (
    'assistant_message', 'embedding', 'llm', 'retrieval', 'rerank', 'run', 'system_message', 'tool',
    'undefined', 'user_message');

CREATE TABLE "User" (
    id          text PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    metadata    jsonb NOT NULL,
    identifier  text NOT NULL
);
CREATE INDEX "User_identifier_idx" ON "User" (identifier);
CREATE UNIQUE INDEX "User_identifier_key" ON "User" (identifier);

CREATE TABLE "Thread" (
    id          text PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "deletedAt" timestamp(3),
    name        text,
    metadata    jsonb NOT NULL,
    "userId"    text REFERENCES "User" (id) ON DELETE SET NULL ON UPDATE CASCADE
);
CREATE INDEX "Thread_createdAt_idx" ON "Thread" ("createdAt");
CREATE INDEX "Thread_name_idx" ON "Thread" (name);

CREATE TABLE "Step" (
    id          text PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "parentId"  text REFERENCES "Step" (id) ON DELETE CASCADE ON UPDATE CASCADE,
    "threadId"  text REFERENCES "Thread" (id) ON DELETE CASCADE ON UPDATE CASCADE,
    input       text,
    metadata    jsonb NOT NULL,
    name        text,
    output      text,
    type        "StepType" NOT NULL,
    "showInput" text DEFAULT 'json',
    "isError"   boolean DEFAULT false,
    "startTime" timestamp(3) NOT NULL,
    "endTime"   timestamp(3) NOT NULL
);
CREATE INDEX "Step_createdAt_idx" ON "Step" ("createdAt");
CREATE INDEX "Step_endTime_idx" ON "Step" ("endTime");
CREATE INDEX "Step_parentId_idx" ON "Step" ("parentId");
CREATE INDEX "Step_startTime_idx" ON "Step" ("startTime");
CREATE INDEX "Step_threadId_idx" ON "Step" ("threadId");
CREATE INDEX "Step_type_idx" ON "Step" (type);
CREATE INDEX "Step_name_idx" ON "Step" (name);
CREATE INDEX "Step_threadId_startTime_endTime_idx" ON "Step" ("threadId", "startTime", "endTime");

CREATE TABLE "Element" (
    id             text PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt"    timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt"    timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "threadId"     text REFERENCES "Thread" (id) ON DELETE CASCADE ON UPDATE CASCADE,
    "stepId"       text NOT NULL REFERENCES "Step" (id) ON DELETE CASCADE ON UPDATE CASCADE,
    metadata       jsonb NOT NULL,
    mime           text,
    name           text NOT NULL,
    "objectKey"    text,
    url            text,
    "chainlitKey"  text,
    display        text,
    size           text,
    language       text,
    page           integer,
    props          jsonb
);
CREATE INDEX "Element_stepId_idx" ON "Element" ("stepId");
CREATE INDEX "Element_threadId_idx" ON "Element" ("threadId");

CREATE TABLE "Feedback" (
    id          text PRIMARY KEY DEFAULT gen_random_uuid(),
    "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "stepId"    text REFERENCES "Step" (id) ON DELETE SET NULL ON UPDATE CASCADE,
    name        text NOT NULL,
    value       double precision NOT NULL,
    comment     text
);
CREATE INDEX "Feedback_createdAt_idx" ON "Feedback" ("createdAt");
CREATE INDEX "Feedback_name_idx" ON "Feedback" (name);
CREATE INDEX "Feedback_stepId_idx" ON "Feedback" ("stepId");
CREATE INDEX "Feedback_value_idx" ON "Feedback" (value);
CREATE INDEX "Feedback_name_value_idx" ON "Feedback" (name, value);
