package s3sink

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/s3sink/s3sink/internal/diagnose"
	"github.com/s3sink/s3sink/internal/s3put"
)

// ValidationReport is the result of [Sink.ValidateReport]. It prints as text, and
// can be encoded as JSON; it holds no secret.
type ValidationReport struct {
	Bucket   string           `json:"bucket"`
	Key      string           `json:"key"` // key of the dummy object
	Region   string           `json:"region,omitempty"`
	Steps    []ValidationStep `json:"steps"` // in order; steps after a failure are missing
	Warnings []string         `json:"warnings,omitempty"`
	Err      *ValidationError `json:"error,omitempty"` // nil: the sink can write
}

// ValidationStep is one step of a validation.
type ValidationStep struct {
	Name     string        `json:"name"`
	Result   StepResult    `json:"result"`
	Tried    string        `json:"tried,omitempty"`
	As       string        `json:"as,omitempty"` // ARN of the identity that made the request, if known
	Detail   string        `json:"detail,omitempty"`
	Duration time.Duration `json:"duration_ns"`

	began time.Time
}

// StepResult is how a step ended.
type StepResult string

// Results of steps.
const (
	StepOK      StepResult = "ok"
	StepFailed  StepResult = "failed"
	StepSkipped StepResult = "skipped"
)

// ValidationCode names the row of the documented table that a failure belongs to.
// Codes do not change between versions.
type ValidationCode string

// The rows of the table. Two messages are used by two rows each, so a code is more
// specific than a message.
const (
	CodeIntermediateRole      ValidationCode = "IntermediateRole"
	CodeExternalIDNotRequired ValidationCode = "ExternalIDNotRequired"
	CodeAssumeRole            ValidationCode = "AssumeRole"
	CodeExternalIDRejected    ValidationCode = "ExternalIDRejected"
	CodePutObjectDenied       ValidationCode = "PutObjectDenied"
	CodePutObject             ValidationCode = "PutObject"
)

// documented holds the messages of Segment's table ("Troubleshooting" of the
// destination AWS S3 with IAM role), and the likely causes of the table, reworded
// for a library. For PutObjectDenied the table says "not error 403", which is a
// mistake: its first version had "Access Denied" there.
var documented = map[ValidationCode]struct{ message, cause string }{
	CodeIntermediateRole: {
		"Unknown Error. Please try again. If the problem persists, please contact Segment support.",
		"there are no usable credentials to begin with, or an intermediate role could not be assumed"},
	CodeExternalIDNotRequired: {
		"Access Denied. Please configure External ID in the AWS IAM Console. Learn more.",
		"the role was assumed without the external id, so it does not demand it"},
	CodeAssumeRole: {
		"Unknown Error. Please follow instructions to set up the AWS S3 destination. If the problem persists, please contact Segment support.",
		"the role could not be assumed, for another reason than a refusal"},
	CodeExternalIDRejected: {
		"Access Denied. Please configure External ID in the AWS IAM Console. Learn more.",
		"STS refused to let the role be assumed"},
	CodePutObjectDenied: {
		"Access Denied. Please add PutObject permissions to the IAM role in the AWS IAM Console. Learn more.",
		"S3 refused the dummy object"},
	CodePutObject: {
		"Unknown Error. Please follow instructions to set up the AWS S3 destination. If the problem persists, please contact Segment support.",
		"the dummy object could not be uploaded, for another reason than a refusal"},
}

// causeOfRegion is the cause of a failure before the dummy object was sent.
const causeOfRegion = "S3 did not name the region of the bucket, so nothing was uploaded"

// ValidationError is the reason why the sink cannot write. Message is the documented
// text. Hint explains the problem and, after "Fix:", the change that solves it. IAM
// statements in Hint are JSON that can be copied.
type ValidationError struct {
	Code    ValidationCode `json:"code"`
	Message string         `json:"message"`
	Cause   string         `json:"cause"`
	Hint    string         `json:"hint"`
	Step    string         `json:"step"`
	Status  int            `json:"status,omitempty"` // HTTP status; 0: no answer
	AWSCode string         `json:"aws_code,omitempty"`

	AWSMessage string `json:"aws_message,omitempty"` // the message of AWS, or of the store
	RequestID  string `json:"request_id,omitempty"`
	Err        error  `json:"-"`

	speaker string // the party that answered, such as "AWS"
}

// Error ends with the answer itself: its status, code, message and request id.
func (e *ValidationError) Error() string {
	text := fmt.Sprintf("s3sink: validate: %s: %s (%s) %s", e.Step, e.Message, e.Code, e.Hint)
	if said := e.said(); said != "" {
		text += " " + said
	}
	if e.RequestID != "" {
		text += " (request id " + e.RequestID + ")"
	}
	return text
}

// said returns the answer in one line, without its request id, or "" if no answer
// came.
func (e *ValidationError) said() string {
	if e.Status == 0 {
		return ""
	}
	parts := nonEmpty(fmt.Sprint(e.Status), e.AWSCode)
	text := "The answer: " + strings.Join(parts, " ")
	if e.speaker != "" {
		text = e.speaker + " said: " + strings.Join(parts, " ")
	}
	if e.AWSMessage != "" {
		text += ": " + e.AWSMessage
	}
	return text
}

func (e *ValidationError) Unwrap() error { return e.Err }

func (v *validation) begin(name, tried string) *ValidationStep {
	v.report.Steps = append(v.report.Steps, ValidationStep{Name: name, Result: StepFailed, Tried: tried, began: time.Now()})
	return &v.report.Steps[len(v.report.Steps)-1]
}

func (v *validation) skip(name, why string) {
	step := v.begin(name, "")
	step.Result, step.Detail = StepSkipped, why
}

func (v *validation) warn(format string, args ...any) {
	v.report.Warnings = append(v.report.Warnings, fmt.Sprintf(format, args...))
}

func (s *ValidationStep) ok(detail string) {
	s.Result, s.Detail, s.Duration = StepOK, detail, time.Since(s.began)
}

func (v *validation) fail(step *ValidationStep, code ValidationCode, err error) *ValidationError {
	step.Duration = time.Since(step.began)
	text := documented[code]
	failed := &ValidationError{Code: code, Message: text.message, Cause: text.cause, Step: step.Name, Err: err}
	if step.Name == StepRegion {
		failed.Cause = causeOfRegion
	}
	facts := v.facts(step.Name, err)
	if errors.Is(err, errNotRequired) {
		step.Detail = "it was assumed"
	} else {
		e := s3put.Describe(err)
		failed.Status, failed.RequestID = e.Status, oneLine(e.RequestID)
		failed.AWSCode, failed.AWSMessage = facts.Answer.Code, facts.Answer.Message
		step.Detail = answer(e)
	}
	failed.Hint, failed.speaker = diagnose.Diagnose(facts).String(), diagnose.Speaker(facts)
	return failed
}

// answer summarizes an answer: the status and the error code, or the content type
// if the answer has no code.
func answer(e *s3put.Error) string {
	if e.Status != 0 && !e.Named {
		return strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, oneLine(e.ContentType)))
	}
	if e.Status != 0 {
		return strings.TrimSpace(fmt.Sprintf("%d %s", e.Status, oneLine(e.Code)))
	}
	var op *net.OpError
	if errors.As(e.Err, &op) {
		return "no answer: " + op.Error()
	}
	deepest := e.Err
	for next := deepest; next != nil; next = errors.Unwrap(next) {
		deepest = next
	}
	return "no answer: " + deepest.Error()
}

// mostText is the maximum length in bytes of a server's text in a report.
const mostText = 2000

// oneLine returns a server's text in one line, without control characters. Any
// server may have answered, and control characters could move a terminal's cursor.
func oneLine(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text))
	if len(text) <= mostText {
		return text
	}
	end := mostText
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// String returns the report as text, without colours.
func (r *ValidationReport) String() string {
	var b strings.Builder
	r.write(&b, plain)
	return b.String()
}

// WriteColored writes the text of String, with the colours of a terminal.
func (r *ValidationReport) WriteColored(w io.Writer) error {
	var b strings.Builder
	r.write(&b, ansi)
	_, err := io.WriteString(w, b.String())
	return err
}

// palette holds the terminal sequences that colour the parts of a report.
type palette struct{ good, bad, warning, quiet, strong, reset string }

var (
	plain palette
	ansi  = palette{good: "\x1b[32m", bad: "\x1b[31m", warning: "\x1b[33m", quiet: "\x1b[2m", strong: "\x1b[1m", reset: "\x1b[0m"}
)

func (r *ValidationReport) write(w *strings.Builder, p palette) {
	fmt.Fprintf(w, "s3://%s/%s\n", r.Bucket, r.Key)
	for _, s := range r.Steps {
		mark := map[StepResult]string{StepOK: p.good + "✓", StepFailed: p.bad + "✗", StepSkipped: p.quiet + "-"}[s.Result]
		fmt.Fprintf(w, "%s%s %-24s", mark, p.reset, s.Name)
		for i, part := range nonEmpty(s.Tried, s.Detail) {
			fmt.Fprintf(w, "%s%s", map[bool]string{true: " ", false: ": "}[i == 0], part)
		}
		if s.As != "" {
			fmt.Fprintf(w, ", as %s", s.As)
		}
		if s.Result != StepSkipped {
			fmt.Fprintf(w, " %s(%v)%s", p.quiet, s.Duration.Round(time.Millisecond), p.reset)
		}
		fmt.Fprintln(w)
	}
	for _, warning := range r.Warnings {
		fmt.Fprintf(w, "%s!%s %s\n", p.warning, p.reset, warning)
	}
	if r.Err == nil {
		fmt.Fprintf(w, "%sThe sink can write.%s\n", p.good, p.reset)
		return
	}
	fmt.Fprintf(w, "\n%s%s%s (%s)\n", p.strong, r.Err.Message, p.reset, r.Err.Code)
	fmt.Fprintf(w, "Cause: %s.\n", r.Err.Cause)
	fmt.Fprint(w, diagnose.Wrap(r.Err.said(), columns))
	if r.Err.RequestID != "" {
		fmt.Fprintf(w, "Request id: %s\n", r.Err.RequestID)
	}
	fmt.Fprint(w, diagnose.Lines(r.Err.Hint, columns))
}

// columns is the width of a report's text.
const columns = 100

func nonEmpty(parts ...string) []string {
	return slices.DeleteFunc(parts, func(s string) bool { return s == "" })
}
