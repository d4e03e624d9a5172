package s3put

import (
	"fmt"
	"log/slog"

	"github.com/aws/smithy-go/logging"
)

// sdkLogger writes the log of the AWS SDK to a slog.Logger, at Debug. By default
// the SDK logs to stderr, for example a warning for each attempt whose answer
// breaks off, which the error of the attempt reports too.
type sdkLogger struct{ to *slog.Logger }

// Logf implements [logging.Logger].
func (l sdkLogger) Logf(class logging.Classification, format string, v ...any) {
	l.to.Debug("s3sink: log of the AWS SDK", slog.String("class", string(class)), slog.String("message", fmt.Sprintf(format, v...)))
}
