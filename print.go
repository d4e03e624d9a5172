package s3sink

import "fmt"

// Format prints the bucket and prefix of the sink. Without this method fmt would
// print its fields, including credentials.
func (s *Sink) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "s3sink.Sink(%s/%s)", s.bucket, s.prefix) }

// Format prints the source by its id.
func (s *Source) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "s3sink.Source(%q)", s.id) }
