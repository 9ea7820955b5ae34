-- A set larger than its style has every prompt more than once, and a photo may be made again: what was made then looked
-- like what was there. A task knows now which take of its prompt it is.
SET LOCAL lock_timeout = '5s';
SET LOCAL statement_timeout = '60s';

-- How many photos of this prompt the avatar had before. Those from before this migration are 0; new ones count them.
ALTER TABLE kie_tasks ADD COLUMN take BIGINT NOT NULL DEFAULT 0;
-- The prompt's number among those of its style, as it was then. A photo made again has it of its original, while its
-- prompt_index is its own: 0. NULL: as prompt_index.
ALTER TABLE kie_tasks ADD COLUMN place BIGINT;
