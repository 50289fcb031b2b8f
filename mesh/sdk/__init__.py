"""What the SDK is made of; programs import mesh.client instead."""
