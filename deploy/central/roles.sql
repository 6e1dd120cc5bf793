-- Once, on a new cluster, as its superuser, with both passwords in the environment:
--   OWNER_PASSWORD=... REPLICATOR_PASSWORD=... psql -v ON_ERROR_STOP=1 -f roles.sql
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
\set owner_password `printenv OWNER_PASSWORD`
\set replicator_password `printenv REPLICATOR_PASSWORD`
CREATE ROLE owner LOGIN CREATEROLE PASSWORD :'owner_password';
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'replicator_password';
SELECT pg_create_physical_replication_slot('replica_1');
CREATE DATABASE bone_age OWNER owner ENCODING 'UTF8' TEMPLATE template0;
\connect bone_age
ALTER SCHEMA public OWNER TO owner;
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
