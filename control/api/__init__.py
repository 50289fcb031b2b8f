"""What the control plane serves: Admin, Enrolment. Placement is mesh/rpc/placement_service.py, shared with nodes."""
