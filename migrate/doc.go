// Package migrate turns the settings of another product's S3 destination into the
// Config of a sink that writes to the same place: [FromSegment] for Segment's
// destinations, [FromRudderStack] for RudderStack's.
//
// Settings are JSON, as the products' APIs return them. Both functions read their
// arguments only: no file, no environment variable, no network. They return the Config,
// the keys that have no effect on it, and an error that joins a [*SettingsError] for
// every key that is wrong. The Config is an ordinary one: a program may change it
// before it calls [s3sink.New]. No error holds a value of the settings, because a value
// may be a secret. Goroutines may call both functions at the same time.
package migrate
