//! stub
pub struct RedisOptions;
pub struct RedisQueue;
