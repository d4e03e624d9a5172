package s3sink

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/s3sink/s3sink/internal/barrier"
)

// guard calls code that is not part of the sink. A panic in that code becomes an
// error of the operation, and a log record with the stack. It does not end the
// process. See [barrier.Run].
type guard struct{ logger *slog.Logger }

// awsCode names the foreign code that uploads and validations call.
const awsCode = "the AWS SDK, or Config.HTTPClient, Config.AWS or the credentials below it,"

// call returns f's error, or an error that wraps a [*barrier.Panic].
func (g guard) call(code string, f func() error) error {
	var failed error
	p := barrier.Run(func() { failed = f() })
	if p == nil {
		return failed
	}
	g.logger.Error("s3sink: code outside the sink panicked; the operation that called it has failed and the process continues; fix that code",
		slog.String("code", code), slog.Any("error", p), slog.String("stack", p.Stack))
	return fmt.Errorf("%s %w", code, p)
}

// guardedHandler wraps the handler of Config.Logger. If the handler panics, only
// that record is lost.
type guardedHandler struct{ next slog.Handler }

func (h guardedHandler) Enabled(ctx context.Context, l slog.Level) (on bool) {
	_ = barrier.Run(func() { on = h.next.Enabled(ctx, l) }) // after a panic, on is false
	return on
}

func (h guardedHandler) Handle(ctx context.Context, r slog.Record) (err error) {
	if p := barrier.Run(func() { err = h.next.Handle(ctx, r) }); p != nil {
		return p
	}
	return err
}

func (h guardedHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return guardedHandler{h.next.WithAttrs(attrs)}
}

func (h guardedHandler) WithGroup(name string) slog.Handler {
	return guardedHandler{h.next.WithGroup(name)}
}
