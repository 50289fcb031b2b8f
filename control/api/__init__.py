"""What the control plane serves: Admin and Enrolment. Placement is shared with nodes, in mesh/rpc."""
