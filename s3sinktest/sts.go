package s3sinktest

import (
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	stsVersion     = "2011-06-15"
	minSession     = 15 * time.Minute
	maxSession     = 12 * time.Hour
	maxChained     = time.Hour // when a session assumes another role
	defaultSession = time.Hour
	maxPolicy      = 2048
	minExternalID  = 2
	maxExternalID  = 1224
)

var (
	roleARN     = regexp.MustCompile(`^arn:aws(-[a-z]+)*:iam::[0-9]{12}:role/[\w+=,.@/-]+$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
	externalID  = regexp.MustCompile(`^[\w+=,.@:/-]*$`)
)

type assumeRoleXML struct {
	XMLName          xml.Name       `xml:"https://sts.amazonaws.com/doc/2011-06-15/ AssumeRoleResponse"`
	AccessKeyID      string         `xml:"AssumeRoleResult>Credentials>AccessKeyId"`
	SecretAccessKey  string         `xml:"AssumeRoleResult>Credentials>SecretAccessKey"`
	SessionToken     string         `xml:"AssumeRoleResult>Credentials>SessionToken"`
	Expiration       string         `xml:"AssumeRoleResult>Credentials>Expiration"`
	AssumedRoleID    string         `xml:"AssumeRoleResult>AssumedRoleUser>AssumedRoleId"`
	ARN              string         `xml:"AssumeRoleResult>AssumedRoleUser>Arn"`
	ResponseMetadata stsMetadataXML `xml:"ResponseMetadata"`
}

type callerXML struct {
	XMLName          xml.Name       `xml:"https://sts.amazonaws.com/doc/2011-06-15/ GetCallerIdentityResponse"`
	ARN              string         `xml:"GetCallerIdentityResult>Arn"`
	UserID           string         `xml:"GetCallerIdentityResult>UserId"`
	Account          string         `xml:"GetCallerIdentityResult>Account"`
	ResponseMetadata stsMetadataXML `xml:"ResponseMetadata"`
}

type stsMetadataXML struct {
	RequestID string `xml:"RequestId"`
}

func (s *Server) handleSTS(c *call) answer {
	if c.form.Get("Version") == stsVersion {
		switch c.operation {
		case "AssumeRole":
			return s.assumeRole(c)
		case "GetCallerIdentity":
			return callerIdentity(c)
		}
	}
	return c.refuse(&apiError{status: 400, code: "InvalidAction",
		message: fmt.Sprintf("Could not find operation %s for version %s", c.operation,
			cmp.Or(c.form.Get("Version"), "NO_VERSION_SPECIFIED"))})
}

func callerIdentity(c *call) answer {
	a := c.reply(http.StatusOK)
	return a.withXML("text/xml", callerXML{
		ARN:              c.caller.arn,
		UserID:           c.caller.id,
		Account:          account(c.caller.arn),
		ResponseMetadata: a.stsMetadata(),
	})
}

func (a answer) stsMetadata() stsMetadataXML {
	return stsMetadataXML{RequestID: a.header.Get("X-Amzn-Requestid")}
}

// account is the fifth field of an ARN.
func account(arn string) string {
	if fields := strings.Split(arn, ":"); len(fields) > 4 {
		return fields[4]
	}
	return ""
}

func (s *Server) assumeRole(c *call) answer {
	if err := checkAssumeRole(c.form); err != nil {
		return c.refuse(err)
	}
	role, err := s.assumable(c)
	if err != nil {
		return c.refuse(err)
	}
	d, err := sessionDuration(c, role)
	if err != nil {
		return c.refuse(err)
	}
	accessKeyID, cred := s.newSession(role, c.form.Get("RoleSessionName"), d)
	a := c.reply(http.StatusOK)
	return a.withXML("text/xml", assumeRoleXML{
		AccessKeyID:      accessKeyID,
		SecretAccessKey:  cred.secret,
		SessionToken:     cred.token,
		Expiration:       cred.expires.UTC().Format(time.RFC3339),
		AssumedRoleID:    cred.id,
		ARN:              cred.arn,
		ResponseMetadata: a.stsMetadata(),
	})
}

// checkAssumeRole looks at the parameters by themselves.
func checkAssumeRole(form url.Values) *apiError {
	if arn := form.Get("RoleArn"); len(arn) < 20 || len(arn) > 2048 || !roleARN.MatchString(arn) {
		return validationError("Request ARN is invalid")
	}
	if !sessionName.MatchString(form.Get("RoleSessionName")) {
		return invalidParameter("roleSessionName", form.Get("RoleSessionName"), `must satisfy regular expression pattern: [\w+=,.@-]{2,64}`)
	}
	if id := form.Get("ExternalId"); form.Has("ExternalId") {
		if len(id) < minExternalID || len(id) > maxExternalID {
			return invalidParameter("externalId", id, "must have length between 2 and 1224")
		}
		if !externalID.MatchString(id) {
			return invalidParameter("externalId", id, `must satisfy regular expression pattern: [\w+=,.@:\/-]*`)
		}
	}
	if form.Has("DurationSeconds") {
		seconds, err := strconv.Atoi(form.Get("DurationSeconds"))
		if err != nil || seconds < int(minSession.Seconds()) || seconds > int(maxSession.Seconds()) {
			return invalidParameter("durationSeconds", form.Get("DurationSeconds"), "must have value between 900 and 43200")
		}
	}
	return checkSessionPolicy(form)
}

func checkSessionPolicy(form url.Values) *apiError {
	policy := form.Get("Policy")
	if !form.Has("Policy") {
		return nil
	}
	if len(policy) > maxPolicy {
		return invalidParameter("policy", policy, "must have length less than or equal to 2048")
	}
	var document map[string]json.RawMessage
	if json.Unmarshal([]byte(policy), &document) != nil || document == nil {
		return &apiError{status: 400, code: "MalformedPolicyDocument", message: "This policy contains invalid Json"}
	}
	return nil
}

// assumable returns the role, if there is one and it trusts the caller. Nobody
// is told which of the reasons against it was the case.
func (s *Server) assumable(c *call) (Role, *apiError) {
	arn := c.form.Get("RoleArn")
	s.mu.Lock()
	role, ok := s.roles[arn]
	s.mu.Unlock()
	if !ok || !role.trusts(c.caller, c.form.Get("ExternalId")) {
		return Role{}, accessDenied("User: " + c.caller.arn +
			" is not authorized to perform: sts:AssumeRole on resource: " + arn)
	}
	return role, nil
}

func sessionDuration(c *call, role Role) (time.Duration, *apiError) {
	chained := c.caller.role != ""
	if !c.form.Has("DurationSeconds") {
		return min(defaultSession, role.MaxSession), nil
	}
	seconds, _ := strconv.Atoi(c.form.Get("DurationSeconds")) // has been checked
	d := time.Duration(seconds) * time.Second
	switch {
	case chained && d > maxChained:
		return 0, validationError("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.")
	case d > role.MaxSession:
		return 0, validationError("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	return d, nil
}

func validationError(message string) *apiError {
	return &apiError{status: 400, code: "ValidationError", message: message}
}

func invalidParameter(name, value, constraint string) *apiError {
	return validationError(fmt.Sprintf("1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member %s",
		value, name, constraint))
}
