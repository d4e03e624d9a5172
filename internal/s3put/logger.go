package s3put

import (
	"fmt"
	"log/slog"

	"github.com/aws/smithy-go/logging"
)

// sdkLogger passes the log of the AWS SDK on at Debug. The SDK writes to
// stderr by default, one warning per attempt when an answer breaks off: the
// attempt's own error says the same.
type sdkLogger struct{ to *slog.Logger }

// Logf implements [logging.Logger].
func (l sdkLogger) Logf(class logging.Classification, format string, v ...any) {
	l.to.Debug("s3sink: log of the AWS SDK", slog.String("class", string(class)), slog.String("message", fmt.Sprintf(format, v...)))
}
