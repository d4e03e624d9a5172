package setup

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/internal/terminal"
)

// validate creates a sink, prints the report of Validate, and reports whether
// the sink can write.
func validate(ctx context.Context, cfg s3sink.Config, out *printer, stderr io.Writer) (ok bool, err error) {
	cfg.Logger = slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer func() { _ = sink.Close(ctx) }() // no events to deliver
	if terminal.Is(stderr) {
		fmt.Fprintln(stderr, "s3sink setup: validating; a refused request is retried for some seconds")
	}
	report, err := sink.ValidateReport(ctx)
	if err != nil {
		return false, err
	}
	out.report(report)
	return report.Err == nil, nil
}
