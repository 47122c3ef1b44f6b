-- A run log as holynb wrote it when every hosted model had 2,048 tokens by default: run `older` of 88f5caf's parent, which called an empty
-- answer ok, the others of d474d5f. Recorded with a server at 127.0.0.1:8931 and `Connection.iterdump`; of the chunked run, its answer alone.
BEGIN TRANSACTION;
CREATE TABLE answers(
  run TEXT NOT NULL, row INTEGER NOT NULL, key TEXT, shared INTEGER NOT NULL, at REAL NOT NULL, status TEXT NOT NULL,
  text TEXT, error_type TEXT, error TEXT, route TEXT, model TEXT, attempts INTEGER NOT NULL, tokens_in INTEGER, tokens_out INTEGER,
  tokens_cached INTEGER, tokens_cache_write INTEGER, cost TEXT, latency_s REAL, ttft_s REAL, finish_reason TEXT,
  cached INTEGER NOT NULL, PRIMARY KEY(run, row)) WITHOUT ROWID;
INSERT INTO "answers" VALUES('1129-022325-a3f6',0,'9d27cbb6b9b1b1075b2fa78bc8a55419c2a3e6957fe2b092dc0b3e29b3ae28fc',1,1.79591900527666664122e+09,'ok','',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',1,9,2048,NULL,NULL,'0.0010249',0.0964457139998558,NULL,'length',0);
INSERT INTO "answers" VALUES('1129-022326-721b',0,'f945a22d8a30a9b920efd9a7ce83602a7b7be5052952a9dbcdf849275009b5e5',1,1.79591900669251370433e+09,'ok','Tea.',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',1,9,2048,NULL,NULL,'0.0010249',6.73257810012728441506e-02,NULL,'stop',0);
INSERT INTO "answers" VALUES('1129-022326-721b',1,'c50862505f5d9880c1c4633938fd6e3943887b20bb558f1e80fcceb86f0a0493',1,1.79591900669564318655e+09,'ok','Te',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',1,9,2048,NULL,NULL,'0.0010249',2.42713599982380401343e-03,NULL,'length',0);
INSERT INTO "answers" VALUES('1129-022326-721b',2,'d6d565f82e7fa79b3ef063f78270c4fb06999cc96c35757655bf9726bd764aea',1,1.79591900669767785079e+09,'error',NULL,'truncated','all 2048 tokens went to thinking; --max-tokens 4096','openai/gpt-6-luna',NULL,1,9,2048,NULL,NULL,'0.0010249',NULL,NULL,'length',0);
INSERT INTO "answers" VALUES('1129-022327-8bc4',0,'a3250bc171e328eae75b489589c414cc62388fbbac91badc21aa6e2b8003c02b',1,1.79591900722323107716e+09,'ok','K',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',6,54,12288,NULL,NULL,'0.0061494',1.59363439997832756489e-02,NULL,'stop',0);
INSERT INTO "answers" VALUES('1129-022327-e32c',0,'aa2240b152d56147772d04469d93343c5e79558e6df0e8aed6435b94fef26668',1,1.79591900718244075777e+09,'ok','Tea.',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',1,9,2048,NULL,NULL,'0.0010249',3.28911999895353801548e-03,NULL,'stop',0);
INSERT INTO "answers" VALUES('1129-022327-e8e0',0,'f945a22d8a30a9b920efd9a7ce83602a7b7be5052952a9dbcdf849275009b5e5',0,1.79591900725051355366e+09,'ok','Tea.',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',0,9,2048,NULL,NULL,'0',6.73257810012728441506e-02,NULL,'stop',1);
INSERT INTO "answers" VALUES('1129-022327-e8e0',1,'a9c90bc1aad6d66d8e429e5051ecd68175f635b02c12f5847e6b0de9c803d6d6',1,1.7959190072546596527e+09,'ok','Tea.',NULL,NULL,'openai/gpt-6-luna','gpt-6-luna',1,9,2048,NULL,NULL,'0.0010249',3.11921799948322586715e-03,NULL,'stop',0);
CREATE TABLE attempts(
  run TEXT NOT NULL, row INTEGER NOT NULL, attempt INTEGER NOT NULL, route TEXT NOT NULL, at REAL NOT NULL,
  kind TEXT NOT NULL, message TEXT, wait REAL, tokens_in INTEGER, tokens_out INTEGER, raw TEXT);
INSERT INTO "attempts" VALUES('1129-022326-721b',2,1,'openai/gpt-6-luna',1.79591900669761776925e+09,'truncated','all 2048 tokens went to thinking; --max-tokens 4096',NULL,9,2048,NULL);
CREATE TABLE payments(
  run TEXT NOT NULL, row INTEGER NOT NULL, at REAL NOT NULL, route TEXT, model TEXT, what TEXT NOT NULL,
  tokens_in INTEGER, tokens_out INTEGER, cost TEXT);
INSERT INTO "payments" VALUES('1129-022326-721b',0,1.79591900669019198413e+09,'openai/gpt-6-luna','gpt-6-luna','answer',9,2048,'0.0010249');
INSERT INTO "payments" VALUES('1129-022326-721b',1,1795919006.69553,'openai/gpt-6-luna','gpt-6-luna','answer',9,2048,'0.0010249');
INSERT INTO "payments" VALUES('1129-022326-721b',2,1.79591900669750356676e+09,'openai/gpt-6-luna','gpt-6-luna','attempt',9,2048,'0.0010249');
INSERT INTO "payments" VALUES('1129-022326-721b',2,1.79591900669767785079e+09,'openai/gpt-6-luna',NULL,'error',NULL,NULL,NULL);
CREATE TABLE requests(
  run TEXT NOT NULL, row INTEGER NOT NULL, sample INTEGER NOT NULL, key TEXT, label TEXT, body TEXT NOT NULL,
  PRIMARY KEY(run, row, sample)) WITHOUT ROWID;
INSERT INTO "requests" VALUES('1129-022325-a3f6',0,0,'9d27cbb6b9b1b1075b2fa78bc8a55419c2a3e6957fe2b092dc0b3e29b3ae28fc','0','{"messages": [["user", "empty"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022326-721b',0,0,'f945a22d8a30a9b920efd9a7ce83602a7b7be5052952a9dbcdf849275009b5e5','0','{"messages": [["user", "tea"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022326-721b',1,0,'c50862505f5d9880c1c4633938fd6e3943887b20bb558f1e80fcceb86f0a0493','1','{"messages": [["user", "cut"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022326-721b',2,0,'d6d565f82e7fa79b3ef063f78270c4fb06999cc96c35757655bf9726bd764aea','2','{"messages": [["user", "away"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022327-e32c',0,0,'aa2240b152d56147772d04469d93343c5e79558e6df0e8aed6435b94fef26668','0','{"messages": [["user", "tea"]], "route": "openai/gpt-6-luna", "max_tokens": 100, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022327-e8e0',0,0,'f945a22d8a30a9b920efd9a7ce83602a7b7be5052952a9dbcdf849275009b5e5','[0, "openai/gpt-6-luna", 0]','{"messages": [["user", "tea"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
INSERT INTO "requests" VALUES('1129-022327-e8e0',1,1,'a9c90bc1aad6d66d8e429e5051ecd68175f635b02c12f5847e6b0de9c803d6d6','[0, "openai/gpt-6-luna", 1]','{"messages": [["user", "tea"]], "route": "openai/gpt-6-luna", "max_tokens": 2048, "temperature": null, "top_p": null, "stop": [], "seed": null, "extra": {}}');
CREATE TABLE runs(
  id TEXT PRIMARY KEY, name TEXT, route TEXT NOT NULL, n INTEGER NOT NULL, started REAL NOT NULL, ended REAL,
  status TEXT NOT NULL DEFAULT 'running', spec TEXT NOT NULL DEFAULT '{}');
INSERT INTO "runs" VALUES('1129-022325-a3f6','older','openai/gpt-6-luna',1,1.79591900509993195531e+09,1.79591900527803945541e+09,'done','{"options": {"name": "older", "api_base": "http://127.0.0.1:8931/v1"}, "given": "openai/gpt-6-luna"}');
INSERT INTO "runs" VALUES('1129-022326-721b','old','openai/gpt-6-luna',3,1.79591900657995128627e+09,1.79591900670067715645e+09,'done','{"options": {"name": "old", "api_base": "http://127.0.0.1:8931/v1"}, "given": "openai/gpt-6-luna"}');
INSERT INTO "runs" VALUES('1129-022327-e32c','said','openai/gpt-6-luna',1,1.79591900717507338522e+09,1.79591900718321609495e+09,'done','{"options": {"max_tokens": 100, "name": "said", "api_base": "http://127.0.0.1:8931/v1"}, "given": "openai/gpt-6-luna"}');
INSERT INTO "runs" VALUES('1129-022327-8bc4','chunked','openai/gpt-6-luna',1,1.79591900720133256907e+09,1.79591900722497582439e+09,'done','{"options": {"name": "chunked", "api_base": "http://127.0.0.1:8931/v1", "chunk": "1000"}, "given": "openai/gpt-6-luna"}');
INSERT INTO "runs" VALUES('1129-022327-e8e0','twice','openai/gpt-6-luna',2,1.79591900724247670179e+09,1.79591900725573968885e+09,'done','{"options": {"name": "twice", "api_base": "http://127.0.0.1:8931/v1", "samples": 2}, "given": "openai/gpt-6-luna", "index": {"names": [null, "asked_route", "sample"], "kinds": ["int64", "str", "int64"]}}');
CREATE INDEX runs_name ON runs(name) WHERE name IS NOT NULL;
CREATE INDEX attempts_run ON attempts(run, row);
CREATE INDEX answers_key ON answers(key, at) WHERE status = 'ok' AND shared = 1;
CREATE INDEX payments_at ON payments(at);
CREATE INDEX answers_spent ON answers(key, at) WHERE status = 'error' AND error_type = 'truncated' AND finish_reason = 'length' AND shared = 1;
COMMIT;
PRAGMA user_version = 1;
