package s3sink_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go/logging"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// records is a slog.Handler that keeps every record.
type records struct {
	mu  sync.Mutex
	all []slog.Record
}

func (*records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler     { return r }
func (r *records) WithGroup(string) slog.Handler          { return r }
func (r *records) Handle(_ context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, record)
	return nil
}

// find returns the records whose message contains text.
func (r *records) find(text string) []slog.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.all), func(record slog.Record) bool { return !strings.Contains(record.Message, text) })
}

// Given a proxy that breaks off the body of an error, when the AWS SDK logs a
// warning, then Config.Logger gets it at Debug, for S3 and for STS, and stderr
// does not. A Config.AWS with a Logger keeps that Logger.
func TestSDKLog_GoesToLogger(t *testing.T) {
	t.Parallel()
	for _, operation := range []string{"PutObject", "AssumeRole"} {
		for name, given := range map[string]*aws.Config{
			"environment":       nil,
			"Config.AWS":        {ClientLogMode: aws.LogRequestWithBody | aws.LogSigning},
			"Config.AWS.Logger": {Logger: logging.Nop{}},
		} {
			t.Run(operation+"/"+name, func(t *testing.T) {
				t.Parallel()
				bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
					var own bytes.Buffer
					cfg.AWS = given
					if given != nil && given.Logger != nil {
						cfg.AWS = &aws.Config{Logger: logging.NewStandardLogger(&own)}
					}
					log := new(records)
					cfg.Logger = slog.New(log)
					server.Inject(s3sinktest.Fault{Operation: operation, Status: 503, Code: "SlowDown", CutAnswer: true, Times: 1})
					sink := open(t, cfg)
					mustTrack(t, sink, map[string]string{"secret": "CANARY"})
					mustClose(t, sink)
					said := log.find("log of the AWS SDK")
					if name == "Config.AWS.Logger" {
						if len(said) != 0 || own.Len() == 0 {
							t.Errorf("the Logger of Config.AWS got %q, Config.Logger %v", &own, said)
						}
						return
					}
					if len(said) == 0 {
						t.Fatal("Config.Logger has no record of the AWS SDK")
					}
					for _, record := range said {
						if record.Level != slog.LevelDebug {
							t.Errorf("%s at level %v", record.Message, record.Level)
						}
						record.Attrs(func(a slog.Attr) bool {
							if text := a.Value.String(); strings.Contains(text, "CANARY") || strings.Contains(text, "Authorization") {
								t.Errorf("the log holds a request: %s", text)
							}
							return true
						})
					}
				})
			})
		}
	}
}
