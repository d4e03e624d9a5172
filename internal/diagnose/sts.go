package diagnose

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/s3sink/s3sink/policy"
)

// sts returns advice on an answer of STS.
func (c *diagnosis) sts() Advice {
	s := &c.Settings
	code, text := c.Answer.Code, c.Answer.Message
	role := c.failing()
	switch code {
	case "InvalidClientTokenId", "InvalidAccessKeyId", "UnrecognizedClientException":
		return Advice{Kind: UnknownKey,
			Says: fmt.Sprintf("%s does not know the access key of the %s: it was deleted, or is of another partition, or the region is one that its account has not opted into.%s", c.who(), c.base(), c.roleIsFine()),
			Fix:  "Create an access key, or get a new session, and set both halves of it."}
	case "SignatureDoesNotMatch", "IncompleteSignature", "InvalidSignature", "InvalidSignatureException":
		return Advice{Kind: WrongSecret,
			Says: fmt.Sprintf("The secret of the %s is not the one of its access key, or a proxy changes requests.%s", c.base(), c.roleIsFine()),
			Fix:  "Set the secret that belongs to the access key; look for a lost character or white space at its end."}
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired":
		return Advice{Kind: EndedSession,
			Says: fmt.Sprintf("The session of the %s has ended.%s", c.base(), c.roleIsFine()),
			Fix:  "Get a new session, or use credentials that renew themselves."}
	case "InvalidToken", "InvalidTokenId":
		return Advice{Kind: InvalidToken,
			Says: fmt.Sprintf("%s does not accept the session token of the %s.%s", c.who(), c.base(), c.roleIsFine()),
			Fix:  "Get a new session and set all three of its parts: access key id, secret and token."}
	case "RegionDisabledException":
		return Advice{Kind: RegionNotActive,
			Says: fmt.Sprintf("STS is not activated in region %s for the account of the role. The external id is not the problem.", s.STSRegion),
			Fix:  "Activate it there (IAM, Account settings, Security Token Service), or set Config.STSRegion to a region where it is active."}
	case "OptInRequired":
		return Advice{Kind: RegionNotActive,
			Says: fmt.Sprintf("The account of the %s has not opted into region %s.%s", c.base(), s.STSRegion, c.roleIsFine()),
			Fix:  "Enable the region, or set Config.STSRegion to a region where it is active."}
	case "ValidationError", "ValidationException":
		return c.badRequest(role)
	}
	switch {
	case c.refusesPolicy():
		return c.sessionPolicyRefused()
	case c.Answer.Status == 403 || code == "AccessDenied" || code == "AccessDeniedException":
		return c.roleDenied(role)
	case s.STSEndpoint != "" && len(s.Roles) > 0:
		return Advice{Kind: Unknown,
			Says: fmt.Sprintf("This STS, which is not AWS's, refuses to assume %s.", role.ARN),
			Fix:  "Read its answer above. If it does not support session policies, use WithoutSessionPolicy; check " + s.STSEndpointFrom + "."}
	}
	return Advice{Kind: Unknown,
		Says: "STS does not say more than its code and its words.",
		Fix:  "Read its answer above, and look it up in the STS API reference (Common Errors) with the request id." + textNote(text)}
}

func textNote(text string) string {
	if text == "" {
		return " The answer has no words; CloudTrail shows the call."
	}
	return ""
}

// who returns the name of the party that answered, for messages on access keys.
func (c *diagnosis) who() string {
	return orWords(Speaker(c.Facts), "The server")
}

// failing returns the role that could not be assumed. STS names it in a denial; a
// step for the caller's credentials fails at an intermediate role.
func (c *diagnosis) failing() Role {
	roles := c.Settings.Roles
	for _, r := range roles {
		if r.ARN == c.denial.Resource {
			return r
		}
	}
	switch {
	case len(roles) == 0:
		return Role{}
	case c.Step == Credentials && len(roles) > 1:
		return roles[len(roles)-2]
	}
	return roles[len(roles)-1]
}

// callerOf returns the ARN of the identity that assumes role, or "".
func (c *diagnosis) callerOf(role Role) string {
	at := slices.Index(c.Settings.Roles, role)
	switch {
	case at > 0:
		return c.Settings.Roles[at-1].ARN
	case len(c.Settings.Roles) == 1 && c.Settings.Caller != "":
		return clean(c.Settings.Caller)
	case strings.HasPrefix(c.denial.Principal, "arn:"):
		return c.denial.Principal
	}
	return ""
}

func (c *diagnosis) badRequest(role Role) Advice {
	text := c.Answer.Message
	switch {
	case strings.Contains(text, "role chaining"):
		return Advice{Kind: SessionDuration,
			Says: fmt.Sprintf("A role that is assumed by a role gets a session of at most 1 hour, and a longer one was requested for %s. The %s are a session of a role already.", role.ARN, c.base()),
			Fix:  "Leave WithDuration away, or use WithDuration(time.Hour) at most."}
	case strings.Contains(text, "MaxSessionDuration"), strings.Contains(text, "DurationSeconds"), strings.Contains(text, "durationSeconds"):
		return Advice{Kind: SessionDuration,
			Says: fmt.Sprintf("The requested session is longer than the maximum session duration of %s.", role.ARN),
			Fix:  "Lower WithDuration, or raise the maximum session duration of the role (IAM, Roles, Edit)."}
	case strings.Contains(text, "roleSessionName"):
		return Advice{Kind: Setting,
			Says: "STS does not accept the name of the session.",
			Fix:  "Correct WithSessionName: 2 to 64 letters, digits or _+=,.@-."}
	case strings.Contains(text, "externalId"):
		return Advice{Kind: Setting,
			Says: "STS does not accept the external id: a character or the length is not allowed.",
			Fix:  "Correct the external id of AssumeRole: 2 to 1224 letters, digits or _+=,.@:/-."}
	case strings.Contains(text, "policy") || strings.Contains(text, "Policy"):
		return c.sessionPolicyRefused()
	case strings.Contains(text, "ARN"), strings.Contains(text, "roleArn"), strings.Contains(text, "Invalid length"):
		return Advice{Kind: RoleARN,
			Says: fmt.Sprintf("STS does not accept the ARN of the role: %s.", role.ARN),
			Fix:  "Copy the ARN from the role's page in IAM: arn:PARTITION:iam::ACCOUNT_ID:role/NAME."}
	}
	fix := fmt.Sprintf("Look at the role's ARN %s", role.ARN)
	if role.Duration {
		fix += ", and at its maximum session duration, because WithDuration is used"
	}
	return Advice{Kind: RoleARN, Says: "STS does not accept the request.", Fix: fix + "."}
}

// refusesPolicy reports whether STS refuses the session policy of the request.
func (c *diagnosis) refusesPolicy() bool {
	switch c.Answer.Code {
	case "PackedPolicyTooLarge", "MalformedPolicyDocument":
		return true
	case "InvalidParameterValue", "InvalidArgument", "InvalidParameter", "MalformedPolicy":
		return c.Settings.STSEndpoint != "" || c.sendsSessionPolicy()
	}
	return false
}

func (c *diagnosis) sendsSessionPolicy() bool {
	return slices.ContainsFunc(c.Settings.Roles, func(r Role) bool { return r.SessionPolicy })
}

func (c *diagnosis) sessionPolicyRefused() Advice {
	a := Advice{Kind: SessionPolicyRefused}
	switch {
	case !c.sendsSessionPolicy():
		a.Says = "STS does not accept a policy, or a parameter, of the request; the sink sends no session policy."
		a.Fix = "Look for session tags that the credentials carry, and for the STS that answers."
	case c.Answer.Code == "PackedPolicyTooLarge" || strings.Contains(c.Answer.Message, "packed"):
		a.Says = "The session policy and the session tags together are too large for STS: the prefix is long, or the caller's session carries tags."
		a.Fix = "Use WithoutSessionPolicy, or a shorter prefix."
	default:
		a.Says = "STS does not accept the session policy: this STS is not AWS's, or does not know the condition kms:ViaService."
		a.Fix = "Use WithoutSessionPolicy"
		if c.Settings.Encryption == "" {
			a.Fix += ", or SSES3, with which the policy has no such condition"
		}
		a.Fix += "."
	}
	return a
}

func (c *diagnosis) externalIDNotRequired() Advice {
	role := c.Settings.writer()
	a := Advice{Kind: ExternalIDNotRequired,
		Says: fmt.Sprintf("The role %s can be assumed without its external id, so its trust policy does not demand it.", role.ARN),
		Fix:  fmt.Sprintf("Replace the statement for the caller in the trust policy of %s; a condition \"StringEquals\" on sts:ExternalId is missing there. A change takes some seconds to be known everywhere.", role.ARN)}
	if caller := c.callerOf(role); caller != "" {
		a.Statements = []Placed{c.trust(role, caller, "sts:AssumeRole")}
	} else {
		a.Fix += fmt.Sprintf(" The condition is \"Condition\": {\"StringEquals\": {\"sts:ExternalId\": %q}}.", role.ExternalID)
	}
	return a
}

// trust returns the statement for the trust policy of role that lets caller assume
// it.
func (c *diagnosis) trust(role Role, caller string, actions ...string) Placed {
	principal, condition := trusted(caller)
	if role.ExternalID != "" {
		condition = maps.Clone(condition)
		condition["StringEquals"] = map[string][]string{"sts:ExternalId": {role.ExternalID}}
	}
	if len(condition) == 0 {
		condition = nil
	}
	return placed(policy.Statement{Action: actions, Condition: condition}, "In the trust policy of "+role.ARN, principal)
}

// assume returns the statement for the permissions of caller that lets it assume
// role.
func (c *diagnosis) assume(role Role, caller string, actions ...string) Placed {
	place := "In the permissions of the caller"
	if caller != "" {
		place = "In the permissions of " + IAMPrincipal(caller)
	}
	return placed(policy.Statement{Action: actions, Resource: []string{role.ARN}}, place, "")
}

// roleDenied returns advice on a denied AssumeRole.
func (c *diagnosis) roleDenied(role Role) Advice {
	d, text := c.denial, c.Answer.Message
	caller := c.callerOf(role)
	if role.ARN == "" || c.Answer.Operation == "GetCallerIdentity" {
		return c.callDenied()
	}
	switch {
	case strings.Contains(text, "assumed by root"), strings.HasSuffix(caller, ":root"):
		return Advice{Kind: RootCaller,
			Says: "The root user of an account cannot assume a role, whatever the policies say.",
			Fix:  fmt.Sprintf("Create an IAM user or a role for this service, allow it sts:AssumeRole on %s, and use its credentials.", role.ARN)}
	case strings.Contains(text, "MultiFactorAuthentication"), strings.Contains(text, "MFA"):
		return Advice{Kind: MFA,
			Says: "The trust policy, or a policy of the caller, demands MFA, and a service has no MFA device.",
			Fix:  fmt.Sprintf("Remove the condition aws:MultiFactorAuthPresent from the trust policy of %s, or exempt this caller from the policy that demands MFA.", role.ARN)}
	case strings.HasSuffix(d.Action, ":TagSession"), strings.HasSuffix(d.Action, ":SetSourceIdentity"):
		return c.sessionTags(role, caller)
	}
	switch d.Reason {
	case IdentityPolicy:
		if d.Explicit {
			return c.explicitDeny(fmt.Sprintf("the permissions of %s", orWords(IAMPrincipal(caller), "the caller")),
				" Policies that enforce MFA often deny everything else.")
		}
		return Advice{Kind: CallerPermissions,
			Says:       fmt.Sprintf("The caller may not assume %s: no policy of the caller allows it. The external id is not the problem.", role.ARN),
			Fix:        "Add this statement." + c.pathNote(caller),
			Statements: []Placed{c.assume(role, caller, "sts:AssumeRole")}}
	case TrustPolicy, ResourcePolicy:
		if d.Explicit {
			return c.explicitDeny("the trust policy of "+role.ARN, "")
		}
		return c.untrusted(role, caller)
	case SessionPolicy:
		return c.callerSession(role)
	case "":
		if d.Explicit {
			return c.explicitDeny("the trust policy of "+role.ARN+", the permissions of the caller and the policies of its organization", "")
		}
		return c.refusedWithoutReason(role, caller)
	}
	return c.guardrail(orWords(IAMPrincipal(caller), "the caller"), "sts:AssumeRole")
}

// callDenied returns advice on a denied call that concerns no role of the sink.
func (c *diagnosis) callDenied() Advice {
	switch {
	case c.denial.Reason == EndpointPolicy, c.denial.Reason == ServiceControl:
		return c.guardrail(orWords(IAMPrincipal(c.denial.Principal), "the caller"), "sts:GetCallerIdentity")
	case c.Answer.Operation == "GetCallerIdentity":
		return Advice{Kind: CredentialSource,
			Says: fmt.Sprintf("The %s cannot be used: AWS refused GetCallerIdentity, which needs no permission.%s", c.base(), c.roleIsFine()),
			Fix:  "Replace the access key or the session; if this host reaches STS through a VPC endpoint, look at its policy."}
	}
	return Advice{Kind: CredentialSource,
		Says: fmt.Sprintf("The %s cannot be used: the call %s was refused.", c.base(), orWords(clean(c.Answer.Operation), "of their provider")),
		Fix:  "Look at the source of the credentials: the profile, the role of the instance, container or service account."}
}

func orWords(text, words string) string {
	if text == "" {
		return words
	}
	return text
}

// pathNote explains why an ARN may need a path.
func (c *diagnosis) pathNote(caller string) string {
	if assumedRole.MatchString(caller) {
		return " If the caller's role has a path, write it into the ARN: a session's ARN does not tell it."
	}
	return ""
}

func (c *diagnosis) untrusted(role Role, caller string) Advice {
	a := Advice{Kind: TrustOfRole, Says: fmt.Sprintf("The trust policy of %s does not allow this call", role.ARN)}
	demands := "a condition of it is not met (sts:ExternalId, aws:SourceIp, aws:MultiFactorAuthPresent, aws:PrincipalOrgID)"
	switch {
	case role.ExternalID != "":
		a.Says += fmt.Sprintf(": it does not name the caller, it demands another external id than %q, or %s.", role.ExternalID, demands)
	default:
		a.Says += fmt.Sprintf(": it does not name the caller, or it demands an external id, and none is configured, or %s.", demands)
	}
	if caller == "" {
		a.Fix = fmt.Sprintf("Let the trust policy of %s name the caller, and set the external id that it demands.", role.ARN)
		return a
	}
	a.Fix = "Compare the trust policy with this statement, and add it where it is missing." + c.pathNote(caller)
	a.Statements = []Placed{c.trust(role, caller, "sts:AssumeRole")}
	return a
}

// refusedWithoutReason lists the possible causes: STS gives the same message for
// all of them.
func (c *diagnosis) refusedWithoutReason(role Role, caller string) Advice {
	id := "without an external id: if the role demands one, set it"
	if role.ExternalID != "" {
		id = fmt.Sprintf("with external id %q", role.ExternalID)
	}
	name := orWords(IAMPrincipal(caller), "the caller")
	a := Advice{Kind: RefusedWithoutReason}
	a.Says = fmt.Sprintf("STS gives the same answer if the role does not exist, its trust policy does not name %s, the external id differs, another condition of the trust policy is not met (MFA, aws:SourceIp), or the caller itself may not sts:AssumeRole. %s was requested %s.",
		name, role.ARN, id)
	if c.Settings.STSEndpoint != "" {
		a.Says += " An STS that is not AWS's also gives it if the access key or its secret is wrong."
	}
	if c.Step == Credentials {
		a.Says = fmt.Sprintf("The intermediate role %s cannot be assumed. ", role.ARN) + a.Says
	}
	a.Fix = "Check each of them. The two statements that the call needs are these." + c.pathNote(caller) + c.copyUserNote()
	a.Statements = []Placed{c.assume(role, caller, "sts:AssumeRole")}
	if caller == "" {
		a.Fix = "Check each of them: the role's trust policy, and the permissions of the credentials that assume it." + c.copyUserNote()
	} else {
		a.Statements = append(a.Statements, c.trust(role, caller, "sts:AssumeRole"))
	}
	return a
}

// sessionTags returns advice on the permissions for tags that a session passes on.
func (c *diagnosis) sessionTags(role Role, caller string) Advice {
	action := "sts:TagSession"
	a := Advice{Kind: SessionTags,
		Says: fmt.Sprintf("The caller's session has transitive tags, as those of EKS Pod Identity, IAM Identity Center and CI systems have, and nobody allows them to be passed on to %s.", role.ARN)}
	if strings.HasSuffix(c.denial.Action, "SetSourceIdentity") {
		action = "sts:SetSourceIdentity"
		a.Says = fmt.Sprintf("The caller's session has a source identity, which goes on to every role, and nobody allows that for %s.", role.ARN)
	}
	if c.denial.Explicit {
		return c.explicitDeny("the permissions of the caller, the trust policy of "+role.ARN+" and the policies of its organization", "")
	}
	if c.denial.Reason == SessionPolicy && c.denial.Principal != "" && slices.ContainsFunc(c.Settings.Roles, func(r Role) bool { return r.SessionPolicy && r.ARN != role.ARN }) {
		a.Says += " The session policy that the sink sends for the intermediate role does not allow it."
		a.Fix = "Use WithoutSessionPolicy for the intermediate role, and allow both actions in these places."
	} else {
		a.Fix = fmt.Sprintf("Allow %s in both places, beside sts:AssumeRole.", action) + c.pathNote(caller)
	}
	a.Statements = []Placed{c.assume(role, caller, "sts:AssumeRole", action)}
	if caller != "" {
		// Only AssumeRole sends the external id. The same request carries both
		// actions, so one statement with the condition covers both.
		a.Statements = append(a.Statements, c.trust(role, caller, "sts:AssumeRole", action))
	}
	return a
}

// callerSession returns advice on a caller whose session policy does not allow
// AssumeRole.
func (c *diagnosis) callerSession(role Role) Advice {
	at := slices.Index(c.Settings.Roles, role)
	if at > 0 && c.Settings.Roles[at-1].SessionPolicy {
		return Advice{Kind: OwnSessionPolicy,
			Says: fmt.Sprintf("The session policy that the sink sends for %s does not allow to assume %s.", c.Settings.Roles[at-1].ARN, role.ARN),
			Fix:  "Use WithoutSessionPolicy for that role, and report it as a fault of s3sink."}
	}
	return Advice{Kind: CallerPermissions,
		Says:       "The caller's session was cut down to less than its role allows, by a session policy of the party that requested the session.",
		Fix:        "Let that session policy have this statement, or use the credentials without it.",
		Statements: []Placed{c.assume(role, "", "sts:AssumeRole")}}
}

// explicitDeny returns advice on a Deny statement in a policy that the user can
// change.
func (c *diagnosis) explicitDeny(where, note string) Advice {
	return Advice{Kind: ExplicitDeny,
		Says: fmt.Sprintf("A policy denies %s explicitly, and no permission helps against that.%s", orWords(c.denial.Action, "the call"), note),
		Fix:  fmt.Sprintf("Look for Deny in %s%s, and exempt this caller or meet the condition of the statement.", where, c.policyARN())}
}

// policyARN returns the ARN of the policy as a note, if AWS names it.
func (c *diagnosis) policyARN() string {
	if c.denial.PolicyARN == "" {
		return ""
	}
	return " (" + c.denial.PolicyARN + ")"
}

// guardrail returns advice on a policy that limits the other policies.
func (c *diagnosis) guardrail(identity, action string) Advice {
	d := c.denial
	if d.Action != "" {
		action = d.Action
	}
	var where, owner string
	switch d.Reason {
	case PermissionsBoundary:
		where, owner = "the permissions boundary of "+identity, "of IAM in that account"
	case ServiceControl:
		where, owner = "a service control policy of the organization of "+accountWords(identity), "of that organization"
	case ResourceControl:
		where, owner = "a resource control policy of the organization that owns the resource", "of that organization"
	case EndpointPolicy:
		where, owner = "the VPC endpoint policy of the network that this host is in", "of the network"
	default:
		where, owner = "a "+string(d.Reason), "of the account"
	}
	where += c.policyARN()
	if d.Via != "" {
		where += ", through a " + string(d.Via)
	}
	a := Advice{Kind: GuardrailPolicy}
	if d.Explicit {
		a.Says = fmt.Sprintf("A policy denies %s explicitly, and no permission helps against that: %s.", action, where)
		a.Fix = fmt.Sprintf("Ask the administrators %s to exempt this identity in %s, or meet the condition of its Deny statement.", owner, where)
		return a
	}
	a.Says = fmt.Sprintf("%s does not allow %s, whatever the other policies allow.", upperFirst(where), action)
	resource := d.Resource
	if resource == "" || strings.HasPrefix(action, "s3:") {
		resource = "*"
		if strings.HasPrefix(action, "s3:") && len(c.Settings.Put.Resource) > 0 {
			resource = c.Settings.Put.Resource[0]
		}
	}
	a.Fix = fmt.Sprintf("Ask the administrators %s to allow it there.", owner)
	statement := policy.Statement{Action: []string{action}, Resource: []string{resource}}
	principal := ""
	if d.Reason == EndpointPolicy {
		principal = "*"
	}
	a.Statements = []Placed{placed(statement, "In "+where, principal)}
	return a
}

func accountWords(identity string) string {
	if parts := strings.Split(identity, ":"); len(parts) > 4 && parts[4] != "" {
		return "account " + parts[4]
	}
	return identity
}

func upperFirst(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

func isBadSecret(code string) bool {
	switch code {
	case "SignatureDoesNotMatch", "IncompleteSignature", "InvalidSignature", "InvalidSignatureException":
		return true
	}
	return false
}
